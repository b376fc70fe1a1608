// Package ocsp answers questions about the status of certificates (RFC 6960; the lightweight profile of RFC 9919; the
// nonce of RFC 9654).
//
// It reads requests ([ParseRequest]), looks the status up, signs with what Config.Delegates gives it, and keeps answers
// that may be given again. HTTP is left to package publish.
//
// # Never good by mistake
//
// Only what the store says now, or what it said and has not changed since, is answered. A serial number that was never
// issued is unauthorized, unsigned, and not remembered. When the store is away, or this replica has not heard of it for
// Config.MaxStale, the answer is tryLater, whatever is kept.
//
// A change of a status drops the kept answer ([Responder.Forget], [Responder.Follow]), and every answer in the making:
// kept answers stand in shards, each with a generation that a change counts up. An answer notes the generation before
// it asks the store, and is given, and kept, only if the generation is still the same, else it is made anew. So once
// Forget has returned, no answer rests on what the store said before. Answers with a nonce are not kept, and are signed
// each; what the store said of their certificates is, in the same shards and under the same rules.
package ocsp
