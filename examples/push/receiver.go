// An endpoint of a push subscription: verifies each request (Standard Webhooks, v1 and v1a), and acts on each message once.
//
//	SECRET=whsec_… go run receiver.go [PORT]
package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const maxBody = 2 << 20

type verifier struct {
	version   string
	matches   func(signed, signature []byte) bool
	tolerance time.Duration // both ways
}

// newVerifier selects the algorithm by the kind of the key, never by what a request names.
func newVerifier(secret, tolerance string) (verifier, error) {
	if tolerance == "" {
		tolerance = "300"
	}
	kind, text, _ := strings.Cut(secret, "_")
	key, err := base64.StdEncoding.DecodeString(text)
	seconds, wrong := strconv.Atoi(tolerance)
	switch {
	case err == nil && wrong == nil && kind == "whsec":
		return verifier{"v1", func(signed, signature []byte) bool {
			mac := hmac.New(sha256.New, key)
			mac.Write(signed)
			return hmac.Equal(mac.Sum(nil), signature)
		}, time.Duration(seconds) * time.Second}, nil
	case err == nil && wrong == nil && kind == "whpk" && len(key) == ed25519.PublicKeySize:
		return verifier{"v1a", func(signed, signature []byte) bool {
			return ed25519.Verify(key, signed, signature)
		}, time.Duration(seconds) * time.Second}, nil
	}
	return verifier{}, fmt.Errorf("SECRET must be whsec_… or whpk_…, TOLERANCE a number of seconds")
}

func (v verifier) isGenuine(header http.Header, body []byte) bool {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > v.tolerance {
		return false
	}
	signed := append([]byte(id+"."+timestamp+"."), body...)
	for _, one := range strings.Split(header.Get("webhook-signature"), " ") {
		version, text, _ := strings.Cut(one, ",")
		signature, err := base64.StdEncoding.DecodeString(text)
		if version == v.version && err == nil && v.matches(signed, signature) {
			return true
		}
	}
	return false
}

func main() {
	verifier, err := newVerifier(os.Getenv("SECRET"), os.Getenv("TOLERANCE"))
	if err != nil {
		log.Fatal(err)
	}
	var lock sync.Mutex
	seen := map[string]bool{} // a real one remembers ids in its database, in the transaction of what it does
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if !verifier.isGenuine(r.Header, body) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		lock.Lock()
		defer lock.Unlock()
		if id := r.Header.Get("webhook-id"); !seen[id] {
			fmt.Printf("%s %s\n", id, body)
			seen[id] = true
		}
		w.WriteHeader(http.StatusNoContent)
	})
	port := "9000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	server := http.Server{Addr: "127.0.0.1:" + port, ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
