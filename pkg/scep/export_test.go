package scep

// ReplyQuantum is the tick at which failures leave.
const ReplyQuantum = replyQuantum

// SetTurns sets how many messages are processed at a time.
func (h *Handler) SetTurns(n int) { h.turns = make(chan struct{}, n) }

// ReasonOf is reasonOf.
var ReasonOf = reasonOf
