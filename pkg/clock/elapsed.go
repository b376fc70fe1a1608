package clock

import "time"

// processStart carries a monotonic reading to count from where the system does not count sleep.
var processStart = time.Now()
