package scepraw

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// CertRep is an answer, read strictly: DER, one signer, and every attribute at most once.
type CertRep struct {
	Attributes         map[string]Element // attribute type -> its only value
	Content            []byte
	HasContent         bool // there is an eContent, though it may be empty
	Certificates       []*x509.Certificate
	DigestAlgorithm    Element // OID
	SignatureAlgorithm Element // OID
}

// Text returns the value of a string attribute, empty if there is none or it is of another type.
func (r *CertRep) Text(typ string, tag byte) string {
	if e := r.Attributes[typ]; e.Tag == tag {
		return string(e.Body)
	}
	return ""
}

// Status is pkiStatus, failInfo and failInfoText.
func (r *CertRep) Status() (status, failInfo, text string) {
	return r.Text(PKIStatus, 0x13), r.Text(FailInfo, 0x13), r.Text(FailInfoText, 0x0c)
}

// take reads elements with these tags; a tag of 0 stands for any, and what is left is an error.
func take(b []byte, tags ...byte) ([]Element, error) {
	list, err := All(b)
	if err != nil {
		return nil, err
	}
	if len(list) != len(tags) {
		return nil, fmt.Errorf("scepraw: %d elements, want %d", len(list), len(tags))
	}
	for i, t := range tags {
		if t != 0 && list[i].Tag != t {
			return nil, fmt.Errorf("scepraw: element %d has tag %#x, want %#x", i, list[i].Tag, t)
		}
	}
	return list, nil
}

// open returns the body of the SEQUENCE in a ContentInfo of this type.
func open(b []byte, typ string) ([]byte, error) {
	outer, err := take(b, 0x30)
	if err != nil {
		return nil, err
	}
	info, err := take(outer[0].Body, 6, 0xa0)
	if err != nil {
		return nil, err
	}
	if !info[0].Is(typ) {
		return nil, fmt.Errorf("scepraw: content type is %x", info[0].Body)
	}
	inner, err := take(info[1].Body, 0x30)
	if err != nil {
		return nil, err
	}
	return inner[0].Body, nil
}

// Degenerate reads a SignedData without signers.
func Degenerate(b []byte) (certificates, crls []Element, err error) {
	body, err := open(b, SignedData)
	if err != nil {
		return nil, nil, err
	}
	list, err := All(body)
	if err != nil {
		return nil, nil, err
	}
	if len(list) < 4 || list[0].Tag != 2 || list[1].Tag != 0x31 || list[2].Tag != 0x30 {
		return nil, nil, errors.New("scepraw: not a SignedData")
	}
	for _, e := range list[3 : len(list)-1] {
		inner, err := All(e.Body)
		if err != nil {
			return nil, nil, err
		}
		switch e.Tag {
		case 0xa0:
			certificates = inner
		case 0xa1:
			crls = inner
		default:
			return nil, nil, fmt.Errorf("scepraw: tag %#x in a SignedData", e.Tag)
		}
	}
	if last := list[len(list)-1]; last.Tag != 0x31 || len(last.Body) != 0 {
		return nil, nil, errors.New("scepraw: a degenerate SignedData with signers")
	}
	return certificates, crls, nil
}

// ReadCertRep reads and verifies a CertRep that one of signers has signed.
func ReadCertRep(b []byte, signers ...*x509.Certificate) (*CertRep, error) {
	body, err := open(b, SignedData)
	if err != nil {
		return nil, err
	}
	list, err := All(body)
	if err != nil {
		return nil, err
	}
	if len(list) == 5 && list[3].Tag == 0xa0 {
		list = append(list[:3:3], list[3], list[4])
	} else if len(list) != 4 {
		return nil, fmt.Errorf("scepraw: SignedData of %d elements", len(list))
	}
	r := &CertRep{Attributes: map[string]Element{}}
	if len(list) == 5 {
		if r.Certificates, err = x509.ParseCertificates(list[3].Body); err != nil {
			return nil, err
		}
	}
	encap, err := All(list[2].Body)
	if err != nil || len(encap) < 1 || !encap[0].Is(Data) {
		return nil, fmt.Errorf("scepraw: eContentType is not data (%w)", err)
	}
	if len(encap) == 2 {
		content, err := take(encap[1].Body, 4)
		if err != nil {
			return nil, err
		}
		r.Content, r.HasContent = content[0].Body, true
	}
	infos, err := take(list[len(list)-1].Body, 0x30)
	if err != nil {
		return nil, fmt.Errorf("scepraw: signerInfos: %w", err)
	}
	info, err := take(infos[0].Body, 2, 0x30, 0x30, 0xa0, 0x30, 4)
	if err != nil {
		return nil, fmt.Errorf("scepraw: signerInfo: %w", err)
	}
	at := slices.IndexFunc(signers, func(c *x509.Certificate) bool { return bytes.Equal(info[1].Full, IssuerAndSerial(c)) })
	if at < 0 {
		return nil, fmt.Errorf("scepraw: signed by somebody else: %x", info[1].Full)
	}
	digest, err := All(info[2].Body)
	if err != nil || len(digest) == 0 {
		return nil, errors.New("scepraw: digestAlgorithm")
	}
	signature, err := All(info[4].Body)
	if err != nil || len(signature) == 0 {
		return nil, errors.New("scepraw: signatureAlgorithm")
	}
	r.DigestAlgorithm, r.SignatureAlgorithm = digest[0], signature[0]
	var hash crypto.Hash
	for h, o := range DigestOIDs {
		if digest[0].Is(o) {
			hash = h
		}
	}
	if hash == 0 {
		return nil, fmt.Errorf("scepraw: digest %x", digest[0].Body)
	}
	attributes, err := All(info[3].Body)
	if err != nil {
		return nil, err
	}
	for i, a := range attributes {
		if i > 0 && bytes.Compare(attributes[i-1].Full, a.Full) >= 0 {
			return nil, errors.New("scepraw: attributes are not in DER's order")
		}
		parts, err := take(a.Body, 6, 0x31)
		if err != nil {
			return nil, err
		}
		value, err := take(parts[1].Body, 0)
		if err != nil {
			return nil, err
		}
		for _, o := range []string{
			ContentType, MessageDigest, SigningTime, MessageType, PKIStatus, FailInfo, SenderNonce, RecipientNonce, TransactionID, FailInfoText,
		} {
			if parts[0].Is(o) {
				if _, twice := r.Attributes[o]; twice {
					return nil, fmt.Errorf("scepraw: attribute %s twice", o)
				}
				r.Attributes[o] = value[0]
			}
		}
	}
	if !r.Attributes[ContentType].Is(Data) || !bytes.Equal(r.Attributes[MessageDigest].Full, Octets(Sum(hash, r.Content))) {
		return nil, errors.New("scepraw: contentType or messageDigest is wrong")
	}
	signed := Sum(hash, Join([]byte{0x31}, info[3].Full[1:]))
	switch key := signers[at].PublicKey.(type) {
	case *rsa.PublicKey:
		err = rsa.VerifyPKCS1v15(key, hash, signed, info[5].Body)
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, signed, info[5].Body) {
			err = errors.New("ECDSA verification error")
		}
	default:
		err = fmt.Errorf("a %T", key)
	}
	if err != nil {
		return nil, fmt.Errorf("scepraw: signature: %w", err)
	}
	return r, nil
}

// Opened is a decrypted EnvelopedData.
type Opened struct {
	Plaintext      []byte
	Cipher         string      // OID
	KeyAlgorithm   Element     // OID
	OAEP           crypto.Hash // of RSAES-OAEP
	RecipientInfos int
}

// Open decrypts an EnvelopedData whose only recipient is c.
func Open(b []byte, c *x509.Certificate, key *rsa.PrivateKey) (*Opened, error) {
	return OpenFor(b, IssuerAndSerial(c), key)
}

// OpenFor is Open for a recipient by its RecipientIdentifier.
func OpenFor(b, id []byte, key *rsa.PrivateKey) (*Opened, error) {
	body, err := open(b, EnvelopedData)
	if err != nil {
		return nil, err
	}
	list, err := take(body, 2, 0x31, 0x30)
	if err != nil {
		return nil, err
	}
	infos, err := take(list[1].Body, 0x30)
	if err != nil {
		return nil, err
	}
	info, err := take(infos[0].Body, 2, 0x30, 0x30, 4)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(info[1].Full, id) {
		return nil, fmt.Errorf("scepraw: encrypted to somebody else: %x", info[1].Full)
	}
	algorithm, err := All(info[2].Body)
	if err != nil || len(algorithm) == 0 {
		return nil, errors.New("scepraw: keyEncryptionAlgorithm")
	}
	o := &Opened{KeyAlgorithm: algorithm[0]}
	var session []byte
	switch {
	case algorithm[0].Is(RSAEncryption):
		//lint:ignore SA1019 it is what SCEP uses
		session, err = rsa.DecryptPKCS1v15(nil, key, info[3].Body)
	case algorithm[0].Is(OAEP) && len(algorithm) == 2:
		options := &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA1}
		params, perr := All(algorithm[1].Body)
		if perr != nil {
			return nil, perr
		}
		for _, p := range params {
			for h, o := range DigestOIDs {
				switch {
				case p.Tag == 0xa0 && bytes.Contains(p.Body, OID(o)):
					options.Hash = h
				case p.Tag == 0xa1 && bytes.Contains(p.Body, OID(o)):
					options.MGFHash = h
				}
			}
		}
		o.OAEP = options.Hash
		session, err = key.Decrypt(nil, info[3].Body, options)
	default:
		return nil, fmt.Errorf("scepraw: key transport %x", algorithm[0].Body)
	}
	if err != nil {
		return nil, fmt.Errorf("scepraw: key: %w", err)
	}
	opened, err := openContent(list[2].Body, session)
	if err != nil {
		return nil, err
	}
	opened.KeyAlgorithm, opened.OAEP, opened.RecipientInfos = o.KeyAlgorithm, o.OAEP, len(infos)
	return opened, nil
}

// openContent decrypts an EncryptedContentInfo.
func openContent(info, session []byte) (*Opened, error) {
	o := &Opened{RecipientInfos: 1}
	content, err := take(info, 6, 0x30, 0x80)
	if err != nil {
		return nil, err
	}
	parameters, err := take(content[1].Body, 6, 4)
	if err != nil || !content[0].Is(Data) {
		return nil, fmt.Errorf("scepraw: encryptedContentInfo (%w)", err)
	}
	for oid, size := range keySizes {
		if !parameters[0].Is(oid) {
			continue
		}
		o.Cipher = oid
		if len(session) != size {
			return nil, fmt.Errorf("scepraw: session key of %d octets", len(session))
		}
		b := block(oid, session)
		n := len(content[2].Body)
		if n == 0 || n%b.BlockSize() != 0 {
			return nil, fmt.Errorf("scepraw: ciphertext of %d octets", n)
		}
		plain := make([]byte, n)
		cipher.NewCBCDecrypter(b, parameters[1].Body).CryptBlocks(plain, content[2].Body)
		pad := int(plain[n-1])
		if pad == 0 || pad > b.BlockSize() || !bytes.Equal(plain[n-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
			return nil, errors.New("scepraw: CBC padding")
		}
		o.Plaintext = plain[:n-pad]
		return o, nil
	}
	return nil, fmt.Errorf("scepraw: cipher %x", parameters[0].Body)
}
