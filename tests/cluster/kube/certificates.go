package main

import (
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// certificates writes into DIRECTORY: a certificate authority (ca.crt), a serving certificate signed by it
// (serving.crt, serving.key) for the given addresses and names, and a key for service accounts' tokens (accounts.key).
func certificates(arguments []string) error {
	if len(arguments) != 3 {
		return fmt.Errorf("usage: kube certificates DIRECTORY ADDRESS,... NAME,...")
	}
	directory, names := arguments[0], strings.Split(arguments[2], ",")
	var addresses []net.IP
	for _, word := range strings.Split(arguments[1], ",") {
		address := net.ParseIP(word)
		if address == nil {
			return fmt.Errorf("not an address: %q", word)
		}
		addresses = append(addresses, address)
	}
	chain, key, err := certutil.GenerateSelfSignedCertKey(names[0], addresses, names)
	if err != nil {
		return err
	}
	_, rest := pem.Decode(chain)
	accounts, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"serving.crt": chain, "serving.key": key, "ca.crt": rest, "accounts.key": accounts} {
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
