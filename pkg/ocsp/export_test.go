package ocsp

// Known returns of how many certificates the status is known without an answer that is kept.
func Known(r *Responder) int {
	n := 0
	for i := range r.cache.shards {
		s := &r.cache.shards[i]
		s.mu.Lock()
		n += len(s.statuses)
		s.mu.Unlock()
	}
	return n
}
