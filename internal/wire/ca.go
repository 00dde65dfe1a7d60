package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// leafCache bounds memory when a client invents host names.
	leafCache = 256
	backdate  = time.Hour // clients whose clock is a little late
)

// CA is the local certificate authority. Its key never leaves the data
// directory, and name constraints keep it from speaking for any host name but
// the ones that end here, so that trusting it endangers no other site.
type CA struct {
	dir   string
	now   func() time.Time
	names []string // extra host names
	ips   []net.IP // extra addresses
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// OpenCA reads the authority kept in dir, or makes it. hosts are further names
// and addresses by which the server is reached; a certificate that does not
// cover them, or is about to expire, is issued anew under the same key.
func OpenCA(dir string, now func() time.Time, hosts ...string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	c := &CA{dir: dir, now: now, leaves: map[string]*tls.Certificate{}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.ips = append(c.ips, ip)
			continue
		}
		if h = canonicalHost(h); h != "" && !slices.Contains(c.names, h) {
			c.names = append(c.names, h)
		}
	}
	if err := c.loadKey(); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if err := c.loadCert(); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return c, nil
}

// CertFile is the path of the authority's certificate.
func (c *CA) CertFile() string { return filepath.Join(c.dir, "ca.pem") }

// Pool trusts this authority alone.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

func (c *CA) loadKey() error {
	path := filepath.Join(c.dir, "ca.key")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.makeKey(path)
	}
	if err != nil {
		return err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return fmt.Errorf("%s holds no PEM block: remove it to have a new authority made", path)
	}
	if c.key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
		return fmt.Errorf("%s: %w: remove it to have a new authority made", path, err)
	}
	return os.Chmod(path, 0o600)
}

func (c *CA) makeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	c.key = key
	return writeAtomic(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func (c *CA) loadCert() error {
	data, err := os.ReadFile(c.CertFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if block, _ := pem.Decode(data); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && c.good(cert) {
			c.cert = cert
			return nil
		}
	}
	template := c.template()
	der, err := x509.CreateCertificate(rand.Reader, template, template, &c.key.PublicKey, c.key)
	if err != nil {
		return err
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return writeAtomic(c.CertFile(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// good reports a certificate of our key that still lives for a year and covers
// all that this server answers for.
func (c *CA) good(cert *x509.Certificate) bool {
	return c.key.PublicKey.Equal(cert.PublicKey) && cert.NotAfter.Sub(c.now()) > caLife/10 &&
		!slices.ContainsFunc(c.template().PermittedDNSDomains, func(d string) bool { return !slices.Contains(cert.PermittedDNSDomains, d) })
}

// template constrains host names only: BoringSSL, which is in grpcio, refuses a
// chain with an address constraint ("unsupported name constraint type") as soon
// as the leaf holds an address, and clients do connect to 127.0.0.1.
func (c *CA) template() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{Organization: []string{"tategu"}, CommonName: "tategu local authority"},
		NotBefore:                   c.now().Add(-backdate),
		NotAfter:                    c.now().Add(caLife),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         append([]string{"googleapis.com", "console.cloud.google.com", "localhost", "tategu.internal"}, c.names...),
	}
}

// leaf gives a certificate for one intercepted host name, or with "" for the
// server's own names and addresses.
func (c *CA) leaf(host string) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.leaves[host]; have != nil && have.Leaf.NotAfter.Sub(c.now()) > leafLife/3 && !have.Leaf.NotBefore.After(c.now()) {
		return have, nil
	}
	made, err := c.issue(host)
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", host, err)
	}
	if len(c.leaves) >= leafCache {
		clear(c.leaves)
	}
	c.leaves[host] = made
	return made, nil
}

func (c *CA) issue(host string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{"tategu"}},
		NotBefore:    c.now().Add(-backdate),
		NotAfter:     c.now().Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{host},
	}
	if host == "" {
		template.DNSNames = append([]string{"localhost", "tategu.internal", "*.tategu.internal"}, c.names...)
		template.IPAddresses = append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, c.ips...)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &key.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// WriteBundle writes one file of trusted roots: ours, the system's, and extra
// (PEM, such as certifi's). Clients are pointed at one file only, and must still
// reach package indexes with it. others counts the roots that are not ours: 0
// means that the system has none and outside hosts will not verify.
func (c *CA) WriteBundle(path string, extra []byte) (others int, err error) {
	n, err := WriteBundle(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}), extra)
	return n - 1, err
}

// WriteBundle writes own (PEM), the system's roots and extra into one file
// without repeats, and counts them.
func WriteBundle(path string, own, extra []byte) (count int, err error) {
	var bundle []byte
	seen := map[string]bool{}
	for _, roots := range [][]byte{own, systemRoots(), extra} {
		for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" && !seen[string(block.Bytes)] {
				seen[string(block.Bytes)] = true
				bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})...)
				count++
			}
		}
	}
	if err := writeAtomic(path, bundle, 0o644); err != nil {
		return 0, fmt.Errorf("certificate bundle: %w", err)
	}
	return count, nil
}

// systemRoots reads the first root file there is, where Go's crypto/x509 looks.
func systemRoots() []byte {
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		if data, err := os.ReadFile(path); err == nil {
			return data
		}
	}
	return nil
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // its reader never fails since Go 1.24
	return n.Add(n, big.NewInt(1))
}

// writeAtomic never leaves half a file, and gives it its mode from the start.
func writeAtomic(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// canonicalHost strips a port and the root dot, and lowers the case.
func canonicalHost(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
