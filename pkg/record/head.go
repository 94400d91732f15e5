package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Head says, signed, how long the ledger is: what is kept elsewhere shows later that nothing was cut off or written anew.
type Head struct {
	// Count is the number of the ledger's lines; Last is the hash of the last of them, in hexadecimal.
	Count uint64 `json:"count"`
	Last  string `json:"last"`
	// Time is when the head was written.
	Time      time.Time `json:"time"`
	Signature []byte    `json:"signature"`
}

func newHead(key ed25519.PrivateKey, end chain, now time.Time) Head {
	return Head{
		Count: end.seq, Last: end.hash.String(), Time: now.UTC(),
		Signature: ed25519.Sign(key, headText(end.seq, end.hash, now)),
	}
}

// encode is the one form of a head.
func (h Head) encode() []byte {
	return fmt.Appendf(nil, `{"count":%d,"last":%q,"time":"%s","signature":"%s"}`+"\n",
		h.Count, h.Last, appendTime(nil, h.Time), base64.StdEncoding.EncodeToString(h.Signature))
}

// ParseHead reads what ledger.head holds. It does not check the signature: Verify does.
func ParseHead(content []byte) (Head, error) {
	var h Head
	if err := json.Unmarshal(content, &h); err != nil {
		return Head{}, fmt.Errorf("it is no head of a ledger: %w", err)
	}
	if !bytes.Equal(h.encode(), content) {
		return Head{}, errors.New("it is not in the form that heads are written in")
	}
	return h, nil
}

// check says what is wrong with the head's signature.
func (h Head) check(key ed25519.PublicKey) error {
	last, err := parseHash(h.Last)
	if err != nil {
		return err
	}
	if !signed(key, headText(h.Count, last, h.Time), h.Signature) {
		return errors.New("its signature is not by the record's key")
	}
	return nil
}

// readHead is ok when there is one.
func readHead(dir string) (h Head, ok bool, err error) {
	content, err := os.ReadFile(filepath.Join(dir, headName))
	if errors.Is(err, fs.ErrNotExist) {
		return Head{}, false, nil
	}
	if err != nil {
		return Head{}, false, err
	}
	if h, err = ParseHead(content); err != nil {
		return Head{}, false, &Fault{File: headName, What: err.Error()}
	}
	return h, true, nil
}
