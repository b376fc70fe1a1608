package scep

// ReplyQuantum is the tick at which failures leave.
const ReplyQuantum = replyQuantum
