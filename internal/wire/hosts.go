package wire

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// hosts knows which names mean this server.
type hosts struct {
	own []string // configured names and addresses, canonical
}

func newHosts(extra []string) hosts {
	own := make([]string, 0, 2+len(extra))
	own = append(own, "localhost", "tategu.internal")
	for _, h := range extra {
		own = append(own, canonicalHost(h))
	}
	return hosts{own: own}
}

// implemented reports a host of the cloud whose API is served here.
func implemented(host string) bool {
	switch host {
	case "aiplatform.googleapis.com", "aiplatform.us.rep.googleapis.com", "aiplatform.eu.rep.googleapis.com",
		"storage.googleapis.com", "oauth2.googleapis.com", "cloudresourcemanager.googleapis.com",
		"iam.googleapis.com", "iamcredentials.googleapis.com", "www.googleapis.com", "sts.googleapis.com", "console.cloud.google.com":
		return true
	}
	name, ok := strings.CutSuffix(host, ".googleapis.com")
	if !ok {
		return false
	}
	region, regional := strings.CutSuffix(name, "-aiplatform")
	if regional {
		return region != "" && !strings.Contains(region, ".")
	}
	return strings.HasSuffix(name, ".storage")
}

// ofTheCloud reports a host that must never be reached by accident, because
// requests to it carry our tokens.
func ofTheCloud(host string) bool {
	return host == "googleapis.com" || strings.HasSuffix(host, ".googleapis.com")
}

// isOwn reports one of the server's own names.
func (h hosts) isOwn(host string) bool {
	return slices.Contains(h.own, host) || strings.HasSuffix(host, ".tategu.internal") || isLoopback(host)
}

// mayMint reports a name for which a client may get a certificate.
func (h hosts) mayMint(host string) bool {
	return implemented(host) || strings.HasSuffix(host, ".tategu.internal")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// check refuses requests that a browser was tricked into: a name that was
// rebound to loopback (the Host header gives it away), or a write from the page
// of another site (Origin and Sec-Fetch-Site give it away), unless welcome says
// that what it is for takes those. known says that the host, in its canonical form, is
// one of the server's own or the cloud's.
func (hosts) check(r *http.Request, host string, known bool, origin *http.CrossOriginProtection, welcome func(*http.Request) bool) error {
	if !known && connOf(r.Context()).loopback {
		return resource.Errorf(codes.PermissionDenied, "this server does not answer for host %q", host).
			WithHint("use localhost, or name the host with --host")
	}
	if err := origin.Check(r); err != nil && !welcome(r) {
		return resource.Errorf(codes.PermissionDenied, "a page of another site may not write here: %w", err)
	}
	return nil
}

// fromPage reports a request that a page of another origin makes to read its
// answer: it has the page's credentials and not those of who sits at the machine.
func fromPage(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}
