package cms

// Normalise gives tests the normaliser.
func Normalise(b []byte, l Limits) ([]byte, error) { return normalise(b, l.withDefaults()) }

// Preset gives tests the key that takes the place of one that does not decrypt.
func Preset(r *Recipient, encrypted []byte, e *EnvelopedData) []byte { return r.preset(encrypted, e) }
