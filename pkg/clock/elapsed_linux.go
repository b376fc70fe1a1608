package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot counts time in sleep too, so that a machine that wakes up is not taken for one whose clock was set.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(processStart)
	}
	return time.Duration(ts.Nano())
}
