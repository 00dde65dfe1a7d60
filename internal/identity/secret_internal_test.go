package identity

import (
	"strings"
	"testing"
	"time"
)

// FuzzParseToken: a token that parses is made of our own characters only, so its
// id is safe as a key, and writing its parts gives it back.
func FuzzParseToken(f *testing.F) {
	a := &Authority{key: make([]byte, keySize)}
	stored, _ := newSecret("abcdefgh12345678")
	f.Add(stored)
	f.Add(a.shortLived(tokenRow{Token: Token{ID: "abcdefgh12345678"}, Salt: "s"}, time.Unix(1<<31, 0)))
	for _, s := range []string{"", "tgu", "tgu__", "tgu_../../../etc/pas_" + strings.Repeat("a", 26), "tgu_abcdefgh12345678_-1_" + strings.Repeat("0", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parseToken(s)
		if !ok {
			return
		}
		if !isWord(p.id) || len(p.id) != idLength {
			t.Errorf("id %q", p.id)
		}
		if p.shortLived() == (p.secret != "") {
			t.Errorf("%q is of both shapes or none", s)
		}
		if strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%q has other characters", s)
		}
		if p.shortLived() && p.mac == a.shortMAC(tokenRow{Token: Token{ID: p.id}}, "") {
			t.Error("empty expiry")
		}
	})
}

func FuzzServiceAccount(f *testing.F) {
	for _, s := range []string{"default@p.iam.tategu.internal", "a@b.iam.gserviceaccount.com", "@", "x@.iam.tategu.internal", "a@*.iam.tategu.internal"} {
		f.Add(s)
	}
	a := &Authority{}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.HasSuffix(s, "@developer.gserviceaccount.com") {
			t.Skip("asks the store")
		}
		project, email, err := a.ServiceAccount(t.Context(), s)
		if err != nil {
			return
		}
		if checkProjectID(project) != nil || isNumber(project) {
			t.Errorf("%q gives project %q", s, project)
		}
		if got, ok := ServiceAccountProject(email); !ok || got != project {
			t.Errorf("%q gives %q, which is in project %q", s, email, got)
		}
		if strings.Count(email, "@") != 1 || strings.HasSuffix(email, "gserviceaccount.com") {
			t.Errorf("%q gives %q", s, email)
		}
	})
}
