package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
)

const (
	pemType     = "PRIVATE KEY"
	maxFileSize = 16 << 10 // bytes; a key takes 119
)

func marshal(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// read reads a key file. Its errors name the path.
func read(path string) (ed25519.PrivateKey, error) {
	// Stat before Open: to open a named pipe would wait for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrCorrupt, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; if nobody has read it, run: chmod 600 %s",
			ErrExposed, path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	key, problem := unmarshal(text)
	if problem != "" {
		return nil, fmt.Errorf("%w: %s: %s; restore it from a copy, or move it away to get a new identity",
			ErrCorrupt, path, problem)
	}
	return key, nil
}

// unmarshal parses the text of a key file, or says what is wrong with it.
func unmarshal(text []byte) (key ed25519.PrivateKey, problem string) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, "it is empty"
	}
	if len(text) > maxFileSize {
		return nil, fmt.Sprintf("it is larger than %d bytes", maxFileSize)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Sprintf("it has no %q block", pemType)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, "something follows the key"
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, "it does not parse: " + err.Error()
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Sprintf("it holds a key of type %T", parsed)
	}
	return key, ""
}
