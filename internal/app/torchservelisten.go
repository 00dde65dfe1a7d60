package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	api "tategu/internal/api/torchserve"
	"tategu/internal/torchserve"
)

// binding is an address and the APIs that are there.
type binding struct {
	network, address string // tcp HOST:PORT, unix PATH
	tls              bool
	inference        bool
	management       bool
	metrics          bool
}

func (b binding) String() string {
	switch {
	case b.network == "unix":
		return "unix:" + b.address
	case b.tls:
		return "https://" + b.address
	}
	return "http://" + b.address
}

func (b binding) names() string {
	var s []string
	for _, n := range []struct {
		name string
		has  bool
	}{{"inference", b.inference}, {"management", b.management}, {"metrics", b.metrics}} {
		if n.has {
			s = append(s, n.name)
		}
	}
	return strings.Join(s, ", ")
}

// parseBinding reads an address as config.properties has it: http(s)://HOST[:PORT] or
// unix:PATH.
func parseBinding(key, s string) (binding, error) {
	refuse := func(why string) (binding, error) {
		return binding{}, fmt.Errorf("%s=%s: %s; want http://HOST:PORT, https://HOST:PORT or unix:PATH", key, s, why)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path = strings.TrimPrefix(path, "//"); path == "" {
			return refuse("there is no path")
		}
		return binding{network: "unix", address: filepath.Clean(path)}, nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return refuse(err.Error())
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse("the scheme is not known")
	case u.Hostname() == "":
		return refuse("there is no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		return refuse("there is more than a host and a port")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return binding{network: "tcp", address: net.JoinHostPort(u.Hostname(), port), tls: u.Scheme == "https"}, nil
}

// grpcBinding is the address of a gRPC API; a host that is empty would be all of them.
func grpcBinding(name, host string, port int) (binding, error) {
	host = strings.Trim(host, "[]")
	if host == "" {
		return binding{}, fmt.Errorf("grpc_%s_address: there is no host; want one such as 127.0.0.1, or 0.0.0.0 for all of this machine's", name)
	}
	return binding{network: "tcp", address: net.JoinHostPort(host, strconv.Itoa(port))}, nil
}

// bindings are the addresses of the HTTP APIs; APIs of one address share it.
func bindings(l torchserve.Listen) ([]binding, error) {
	var out []binding
	for _, a := range []struct {
		key, value string
		set        func(*binding)
		off        bool
	}{
		{"inference_address", l.Inference, func(b *binding) { b.inference = true }, false},
		{"management_address", l.Management, func(b *binding) { b.management = true }, false},
		{"metrics_address", l.MetricsAddress, func(b *binding) { b.metrics = true }, !l.MetricsAPI},
	} {
		if a.off {
			continue
		}
		b, err := parseBinding(a.key, a.value)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(out, func(o binding) bool { return o.network == b.network && o.address == b.address })
		if i < 0 {
			out = append(out, b)
			i = len(out) - 1
		} else if out[i].tls != b.tls {
			return nil, fmt.Errorf("%s=%s: another API has this address with another scheme", a.key, a.value)
		}
		a.set(&out[i])
	}
	return out, nil
}

func (b binding) handler(a *api.API) http.Handler {
	switch {
	case b.inference && !b.management && !b.metrics:
		return a.Inference()
	case b.management && !b.inference && !b.metrics:
		return a.Management()
	case b.metrics && !b.inference && !b.management:
		return a.MetricsAPI()
	}
	return a.All(b.inference, b.management, b.metrics)
}

func (b binding) listen(l torchserve.Listen) (net.Listener, error) {
	if b.network == "unix" {
		// One that a killed server left is in the way.
		if info, err := os.Lstat(b.address); err == nil && info.Mode()&os.ModeSocket != 0 {
			if c, err := net.DialTimeout("unix", b.address, time.Second); err == nil { //nolint:noctx // it has its end
				return nil, errors.Join(fmt.Errorf("listen on %s: another server is there", b), c.Close())
			}
			if err := os.Remove(b.address); err != nil {
				return nil, err
			}
		}
	}
	var config *tls.Config
	if b.tls {
		var err error
		if config, err = tlsConfig(l); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen(b.network, b.address) //nolint:noctx // it does not wait
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; another address goes into config.properties (inference_address, management_address, metrics_address, grpc_inference_port, grpc_management_port)", b, err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	return ln, nil
}

// tlsConfig has the certificate of certificate_file and private_key_file, or of
// keystore; without both one is made that nobody signed, as TorchServe does.
func tlsConfig(l torchserve.Listen) (*tls.Config, error) {
	var cert tls.Certificate
	var err error
	switch {
	case l.Keystore != "":
		cert, err = readKeystore(l)
	case l.CertificateFile != "" && l.PrivateKeyFile != "":
		if cert, err = tls.LoadX509KeyPair(l.CertificateFile, l.PrivateKeyFile); err != nil {
			err = fmt.Errorf("certificate_file and private_key_file: %w", err)
		}
	case l.CertificateFile != "" || l.PrivateKeyFile != "":
		return nil, errors.New("certificate_file goes with private_key_file: one of them is not set")
	default:
		cert, err = ownCertificate(time.Now())
	}
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

func readKeystore(l torchserve.Listen) (tls.Certificate, error) {
	if !strings.EqualFold(l.KeystoreType, "PKCS12") {
		return tls.Certificate{}, fmt.Errorf("keystore_type=%s is not supported: want PKCS12 (keytool -importkeystore -srckeystore OLD -destkeystore NEW.p12 -deststoretype PKCS12)", l.KeystoreType)
	}
	data, err := os.ReadFile(l.Keystore)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("keystore: %w", err)
	}
	key, leaf, chain, err := pkcs12.DecodeChain(data, l.KeystorePass)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("keystore %s: %w", l.Keystore, err)
	}
	cert := tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// ownCertificate makes one for this machine, for a year.
func ownCertificate(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, DNSNames: []string{host, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{PrivateKey: key, Certificate: [][]byte{der}}, nil
}
