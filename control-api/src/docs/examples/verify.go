package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
)

// Verify says whether the gateway sent this. secrets: those of the listing; header: for example
// http.Header.Get; body: the raw bytes; now: Unix seconds.
func Verify(secrets []string, header func(string) string, body []byte, now int64) bool {
	field := func(name string) string { return header("X-Crochet-" + name) }
	timestamp, err := strconv.ParseInt(field("Timestamp"), 10, 64)
	if err != nil || now-timestamp > 300 || timestamp-now > 300 {
		return false
	}
	hash := sha256.Sum256(body)
	covered := strings.Join([]string{
		"v2", field("Request-Id"), field("Timestamp"), field("Listing-Id"), field("Buyer-Id"),
		field("Attempt"), field("Charged-Micros"), hex.EncodeToString(hash[:]),
	}, ".")
	for _, secret := range secrets {
		coded, ours := strings.CutPrefix(secret, "whsec_")
		key, err := base64.StdEncoding.DecodeString(coded)
		if !ours || err != nil {
			continue
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(covered))
		tag := []byte("v2," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		for _, one := range strings.Split(field("Signature"), " ") {
			if hmac.Equal(tag, []byte(one)) {
				return true
			}
		}
	}
	return false
}
