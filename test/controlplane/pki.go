// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// pki is a certificate authority and what it signed, as PEM files NAME.crt and
// NAME.key in one directory: server, and the client certificates admin and
// hhwatchd.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  any
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// issue signs the certificates anew with the authority in the directory, which
// it makes when there is none. The authority stays the same from run to run, so
// that clients of an earlier run are still trusted.
func issue(dir string) (*pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p := &pki{dir: dir}
	pair, err := tls.LoadX509KeyPair(p.path("ca.crt"), p.path("ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		err = p.write("ca", &x509.Certificate{
			Subject:               pkix.Name{CommonName: "controlplane"},
			KeyUsage:              x509.KeyUsageCertSign,
			BasicConstraintsValid: true,
			IsCA:                  true,
		})
		if err != nil {
			return nil, err
		}
		pair, err = tls.LoadX509KeyPair(p.path("ca.crt"), p.path("ca.key"))
	}
	if err != nil {
		return nil, err
	}
	p.cert, p.key = pair.Leaf, pair.PrivateKey

	err = p.write("server", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		return nil, err
	}
	// The API server takes the common name for the user and each organization
	// for a group.
	for _, user := range []pkix.Name{
		{CommonName: "admin", Organization: []string{"system:masters"}},
		{CommonName: "hhwatchd"},
	} {
		err = p.write(user.CommonName, &x509.Certificate{
			Subject:     user,
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// write makes a key, signs the certificate (with its own key when there is no
// authority yet) for a year, and writes both. The certificate is written last:
// where there is one, there is its key.
func (p *pki) write(name string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	parent, signer := p.cert, p.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := replace(p.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	return replace(p.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// writeKubeconfig writes a kubeconfig that holds all that it needs, for the
// user with the certificate of that name.
func writeKubeconfig(file, serverURL, user string, p *pki) error {
	var read [3][]byte
	for i, name := range []string{"ca.crt", user + ".crt", user + ".key"} {
		b, err := os.ReadFile(p.path(name))
		if err != nil {
			return err
		}
		read[i] = b
	}
	config := api.NewConfig()
	config.Clusters["controlplane"] = &api.Cluster{Server: serverURL, CertificateAuthorityData: read[0]}
	config.AuthInfos[user] = &api.AuthInfo{ClientCertificateData: read[1], ClientKeyData: read[2]}
	config.Contexts[user] = &api.Context{Cluster: "controlplane", AuthInfo: user, Namespace: "default"}
	config.CurrentContext = user
	b, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return replace(file, b)
}

// replace writes a file as a whole, since a client may read the former one
// while the server is being restarted.
func replace(file string, b []byte) error {
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
