package wire

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
)

// Issue signs a leaf for any host, also those that the port never asks for.
func Issue(c *CA, host string) (*x509.Certificate, error) {
	pair, err := c.issue(host)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// IssuePair is Issue with the key.
func IssuePair(c *CA, host string) (*tls.Certificate, error) { return c.issue(host) }

// MethodNames lists every method that the port knows, in the table or not.
func MethodNames(s *Server) []string { return slices.Sorted(maps.Keys(s.methods.byName)) }
