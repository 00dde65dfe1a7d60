package identity_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store/sqlite"
)

// clock is a settable time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type fixture struct {
	*identity.Authority
	clock *clock
	store *sqlite.Store
	dir   string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureFor(t)
}

func newFixtureFor(tb testing.TB) *fixture {
	tb.Helper()
	f := &fixture{dir: tb.TempDir(), clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	f.open(tb)
	return f
}

// open starts the authority on the fixture's directory; a second call is a restart.
func (f *fixture) open(tb testing.TB) {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), filepath.Join(f.dir, "state.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	a, err := identity.NewAuthority(s, filepath.Join(f.dir, "keys"), f.clock.Now)
	if err != nil {
		tb.Fatal(err)
	}
	f.Authority, f.store = a, s
}

func (f *fixture) token(t *testing.T, email string, grants map[string]identity.Role) string {
	t.Helper()
	secret, _, err := f.CreateToken(t.Context(), identity.TokenSpec{Email: email, Grants: grants})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func (f *fixture) principal(t *testing.T, email string, grants map[string]identity.Role) identity.Principal {
	t.Helper()
	p, err := f.Authenticate(t.Context(), f.token(t, email, grants))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := resource.CodeOf(err); got != want {
		t.Errorf("%s: %v, want %v (%v)", what, got, want, err)
	}
}

func TestAuthenticateRefusesWhatItDidNotIssue(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t), newFixture(t)
	ctx := t.Context()
	good := f.token(t, "ann@example.com", map[string]identity.Role{"a": identity.User})
	refresh, _, err := f.Login(ctx, good)
	if err != nil {
		t.Fatal(err)
	}
	session, err := f.Refresh(ctx, refresh)
	if err != nil {
		t.Fatal(err)
	}
	foreign := other.token(t, "ann@example.com", map[string]identity.Role{"a": identity.User})
	last := func(s string) string { // one character changed
		c := byte('a')
		if s[len(s)-1] == c {
			c = 'b'
		}
		return s[:len(s)-1] + string(c)
	}
	id := strings.Split(good, "_")[1]
	// exp moved ten years on, MAC kept
	parts := strings.Split(session.Token, "_")
	parts[2] = "zzzzzz"
	stretched := strings.Join(parts, "_")
	for _, tt := range []struct{ name, bearer string }{
		{"none", ""},
		{"garbage", "hello"},
		{"another installation's", foreign},
		{"wrong secret", last(good)},
		{"cut secret", good[:len(good)-1]},
		{"id alone", "tgu_" + id + "_"},
		{"upper case", strings.ToUpper(good)},
		{"refresh token as bearer", refresh},
		{"wrong MAC", last(session.Token)},
		{"longer life", stretched},
		{"MAC of nothing", "tgu_" + id + "_zzzzzz_" + strings.Repeat("0", 64)},
		{"SQL", "tgu_' OR 1=1 --00_" + strings.Repeat("a", 26)},
		{"path as key id", "tgu_../../etc/passw_" + strings.Repeat("a", 26)},
		{"JWT alg none", "eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImEifQ."},
		{"JWT HS256", "eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6ImEiLCJleHAiOjk5OTk5OTk5OTl9.c2ln"},
		{"huge", "tgu_" + strings.Repeat("a", 1<<20)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := f.Authenticate(context.Background(), tt.bearer)
			wantCode(t, tt.bearer[:min(len(tt.bearer), 60)], err, codes.Unauthenticated)
			if !p.Anonymous() {
				t.Errorf("got principal %+v", p)
			}
		})
	}
	for _, bearer := range []string{good, session.Token} {
		p, err := f.Authenticate(ctx, bearer)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]identity.Role{"a": identity.User}, p.Grants); diff != "" || p.Email != "ann@example.com" || p.Operator {
			t.Errorf("principal %+v: %s", p, diff)
		}
	}
}

func TestTokensEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	access, tok, err := f.CreateToken(ctx, identity.TokenSpec{Email: "a@b.c", Grants: map[string]identity.Role{"p": identity.User}, TTL: 90 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	refresh, _, err := f.Login(ctx, access)
	if err != nil {
		t.Fatal(err)
	}
	session, err := f.Refresh(ctx, refresh)
	if err != nil {
		t.Fatal(err)
	}
	if d := session.Expires.Sub(f.clock.Now()); d > time.Hour || d <= 0 {
		t.Errorf("a session lives %v, want up to an hour", d)
	}
	f.clock.Advance(time.Hour)
	_, err = f.Authenticate(ctx, session.Token)
	wantCode(t, "session after an hour", err, codes.Unauthenticated)
	session, err = f.Refresh(ctx, refresh)
	if err != nil {
		t.Fatal(err)
	}
	if want := tok.Expires; !session.Expires.Equal(want) {
		t.Errorf("session ends %v, want no later than its login: %v", session.Expires, want)
	}
	if err := f.RevokeToken(ctx, identity.OperatorPrincipal(), tok.ID); err != nil {
		t.Fatal(err)
	}
	for name, bearer := range map[string]string{"access": access, "session": session.Token} {
		_, err := f.Authenticate(ctx, bearer)
		wantCode(t, name+" after revocation", err, codes.Unauthenticated)
	}
	_, err = f.Refresh(ctx, refresh)
	wantCode(t, "refresh after revocation of its parent", err, codes.Unauthenticated)
	_, _, err = f.Login(ctx, access)
	wantCode(t, "login after revocation", err, codes.Unauthenticated)
}

func TestExpiredTokensAreDeadAndSweptOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	grants := map[string]identity.Role{"p": identity.User}
	old, _, err := f.CreateToken(ctx, identity.TokenSpec{Email: "a@b.c", Grants: grants, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(time.Minute)
	_, err = f.Authenticate(ctx, old)
	wantCode(t, "expired", err, codes.Unauthenticated)
	if !strings.Contains(err.Error(), "expired") {
		t.Errorf("error %q does not say that the token expired", err)
	}
	f.token(t, "a@b.c", grants)
	_, err = f.store.Get(ctx, "tokens", strings.Split(old, "_")[1])
	wantCode(t, "row of an expired token", err, codes.NotFound)
}

// TestClockSetBack: a token is good until its time, whichever way the clock comes
// there; what was issued in a future that turned out wrong is good too.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	grants := map[string]identity.Role{"p": identity.User}
	access := f.token(t, "a@b.c", grants)
	refresh, _, err := f.Login(ctx, access)
	if err != nil {
		t.Fatal(err)
	}
	session, err := f.Refresh(ctx, refresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{-time.Hour, -30 * 24 * time.Hour, 31 * 24 * time.Hour, -24 * time.Hour} {
		f.clock.Advance(step)
		f.token(t, "else@b.c", grants) // sweeps what has expired
		for name, bearer := range map[string]string{"access": access, "session": session.Token} {
			if _, err := f.Authenticate(ctx, bearer); err != nil && f.clock.Now().Before(session.Expires) {
				t.Errorf("%s token after a step of %v: %v", name, step, err)
			}
		}
		if _, err := f.Refresh(ctx, refresh); err != nil {
			t.Errorf("refresh after a step of %v: %v", step, err)
		}
	}
}

func TestSecretsAreNotStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	access := f.token(t, "a@b.c", map[string]identity.Role{"p": identity.User})
	refresh, _, err := f.Login(ctx, access)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(f.dir, "state.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{access, refresh} {
			if strings.Contains(string(b), strings.Split(token, "_")[2]) {
				t.Errorf("%s holds a secret in clear text", file)
			}
		}
	}
}

func TestCreateTokenRefusesNonsense(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ok := map[string]identity.Role{"p": identity.User}
	many := map[string]identity.Role{"a b": identity.User}
	for _, tt := range []struct {
		name string
		spec identity.TokenSpec
	}{
		{"no e-mail", identity.TokenSpec{Grants: ok}},
		{"the operator's name", identity.TokenSpec{Email: identity.OperatorEmail, Grants: ok}},
		{"a service account", identity.TokenSpec{Email: "x@p.iam.tategu.internal", Grants: ok}},
		{"a name with its e-mail", identity.TokenSpec{Email: "Ann <a@b.c>", Grants: ok}},
		{"line break", identity.TokenSpec{Email: "a@b.c\n", Grants: ok}},
		{"no grants", identity.TokenSpec{Email: "a@b.c"}},
		{"unknown role", identity.TokenSpec{Email: "a@b.c", Grants: map[string]identity.Role{"p": "owner"}}},
		{"bad project", identity.TokenSpec{Email: "a@b.c", Grants: many}},
		{"for ever", identity.TokenSpec{Email: "a@b.c", Grants: ok, TTL: 10 * 366 * 24 * time.Hour}},
		{"negative life", identity.TokenSpec{Email: "a@b.c", Grants: ok, TTL: -time.Hour}},
		{"a task's kind", identity.TokenSpec{Email: "a@b.c", Grants: ok, Kind: identity.TokenTask}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := f.CreateToken(t.Context(), tt.spec)
			wantCode(t, tt.name, err, codes.InvalidArgument)
		})
	}
}

func TestOnlyAdministratorsHandOutAndRevoke(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	adminA := f.principal(t, "admin@a.com", map[string]identity.Role{"a": identity.Admin})
	userA := f.principal(t, "user@a.com", map[string]identity.Role{"a": identity.User})
	everywhere := f.principal(t, "root@a.com", map[string]identity.Role{"*": identity.Admin})
	a, b := map[string]identity.Role{"a": identity.Admin}, map[string]identity.Role{"b": identity.Viewer}
	both, all := map[string]identity.Role{"a": identity.Viewer, "b": identity.Viewer}, map[string]identity.Role{"*": identity.Viewer}
	for _, tt := range []struct {
		name   string
		p      identity.Principal
		grants map[string]identity.Role
		want   codes.Code
	}{
		{"admin of a, for a", adminA, a, codes.OK},
		{"admin of a, for b", adminA, b, codes.PermissionDenied},
		{"admin of a, for a and b", adminA, both, codes.PermissionDenied},
		{"admin of a, for all", adminA, all, codes.PermissionDenied},
		{"user of a, for a", userA, a, codes.PermissionDenied},
		{"admin of all", everywhere, all, codes.OK},
		{"operator", identity.OperatorPrincipal(), all, codes.OK},
		{"nobody", identity.Principal{}, a, codes.Unauthenticated},
	} {
		wantCode(t, tt.name, f.MayGrant(ctx, tt.p, tt.grants), tt.want)
	}
	_, tok, err := f.CreateToken(ctx, identity.TokenSpec{Email: "x@a.com", Grants: both})
	if err != nil {
		t.Fatal(err)
	}
	_, onlyB, err := f.CreateToken(ctx, identity.TokenSpec{Email: "y@b.com", Grants: b})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "user revokes", f.RevokeToken(ctx, userA, tok.ID), codes.NotFound)
	wantCode(t, "admin of a revokes a token of a and b", f.RevokeToken(ctx, adminA, tok.ID), codes.PermissionDenied)
	wantCode(t, "admin of a revokes a token of b", f.RevokeToken(ctx, adminA, onlyB.ID), codes.NotFound)
	wantCode(t, "nobody revokes", f.RevokeToken(ctx, identity.Principal{}, tok.ID), codes.Unauthenticated)
	wantCode(t, "a principal without token revokes", f.RevokeToken(ctx, identity.Principal{Email: "z@z.z"}, tok.ID), codes.NotFound)

	ids := func(p identity.Principal) []string {
		list, err := f.ListTokens(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		var emails []string
		for _, tk := range list {
			emails = append(emails, tk.Email+" "+strings.Join(slices.Sorted(maps.Keys(tk.Grants)), ","))
		}
		slices.Sort(emails)
		return emails
	}
	if diff := cmp.Diff([]string{"user@a.com a"}, ids(userA)); diff != "" {
		t.Errorf("a user sees more than its own token: %s", diff)
	}
	if diff := cmp.Diff([]string{"admin@a.com a", "user@a.com a", "x@a.com a"}, ids(adminA)); diff != "" {
		t.Errorf("an administrator sees: %s", diff)
	}
	wantCode(t, "a user revokes its own", f.RevokeToken(ctx, userA, userA.TokenID), codes.OK)
	wantCode(t, "admin of all revokes", f.RevokeToken(ctx, everywhere, tok.ID), codes.OK)
}

func TestOperatorRefreshTokenOutlivesRestarts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	first, err := f.OperatorRefreshToken(ctx)
	if err != nil {
		t.Fatal(err)
	}
	session, err := f.Refresh(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	again, err := f.OperatorRefreshToken(ctx)
	if err != nil || again != first {
		t.Errorf("after a restart: another token, or %v", err)
	}
	p, err := f.Authenticate(ctx, session.Token)
	if err != nil || p.Operator {
		t.Errorf("session after a restart: %+v, %v; a token never makes the loopback operator", p, err)
	}
	wantCode(t, "deploy", f.Authorize(ctx, p, "any", "aiplatform.endpoints.deploy"), codes.OK)
	info, err := os.Stat(filepath.Join(f.dir, "keys", "operator.token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("operator.token: %v %v, want mode 0600", info, err)
	}
	if err := f.RevokeSecret(ctx, first); err != nil {
		t.Fatal(err)
	}
	if next, err := f.OperatorRefreshToken(ctx); err != nil || next == first {
		t.Errorf("after revocation: the same token, or %v", err)
	}
}

func TestKeyOfTheInstallation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	path := filepath.Join(f.dir, "keys", "identity.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key: %v %v, want mode 0600", info, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = identity.NewAuthority(f.store, filepath.Join(f.dir, "keys"), f.clock.Now)
	wantCode(t, "key readable by others", err, codes.FailedPrecondition)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = identity.NewAuthority(f.store, filepath.Join(f.dir, "keys"), f.clock.Now)
	wantCode(t, "torn key", err, codes.DataLoss)
}

func TestProjectNumbers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	numbers := make([]string, 16)
	var wg sync.WaitGroup
	for i := range numbers {
		wg.Go(func() { numbers[i], _ = f.ProjectNumber(context.WithoutCancel(ctx), []string{"one", "two"}[i%2]) })
	}
	wg.Wait()
	distinct := slices.Compact(slices.Sorted(slices.Values(numbers)))
	if len(distinct) != 2 || len(distinct[0]) != 12 || len(distinct[1]) != 12 {
		t.Fatalf("numbers of two projects: %v, want two of 12 digits", distinct)
	}
	id, err := f.ProjectID(ctx, numbers[0])
	if err != nil || id != "one" {
		t.Errorf("ProjectID(%s) = %q, %v", numbers[0], id, err)
	}
	if n, err := f.ProjectNumber(ctx, numbers[1]); err != nil || n != numbers[1] {
		t.Errorf("ProjectNumber of a number = %q, %v", n, err)
	}
	_, err = f.ProjectID(ctx, "999")
	wantCode(t, "unknown number", err, codes.NotFound)
	for _, bad := range []string{"", "*", "_", "a/b", "../x", "a b", "a\x00b", "-a", strings.Repeat("a", 64)} {
		_, err := f.ProjectID(ctx, bad)
		wantCode(t, bad, err, codes.InvalidArgument)
	}
	// A number stands for its project in permission checks too.
	p := f.principal(t, "a@b.c", map[string]identity.Role{numbers[0]: identity.User})
	wantCode(t, "granted by number, asked by id", f.Authorize(ctx, p, "one", "aiplatform.models.upload"), codes.OK)
	wantCode(t, "asked by number", f.Authorize(ctx, p, numbers[0], "aiplatform.models.upload"), codes.OK)
	wantCode(t, "another's number", f.Authorize(ctx, p, numbers[1], "aiplatform.models.get"), codes.PermissionDenied)
	wantCode(t, "nobody's number", f.Authorize(ctx, p, "999", "aiplatform.models.get"), codes.PermissionDenied)
}

// TestRevokedAtOnce has callers who show a token all the time: once it is revoked, no
// memory of it is left, whoever read it meanwhile.
func TestRevokedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 20 {
		secret, tok, err := f.CreateToken(t.Context(), identity.TokenSpec{Email: "a@b.c", Grants: map[string]identity.Role{"p": identity.User}})
		if err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		var served atomic.Int64
		for range 4 {
			callers.Go(func() {
				for {
					if _, err := f.Authenticate(t.Context(), secret); err != nil {
						return
					}
					served.Add(1)
				}
			})
		}
		for served.Load() == 0 {
			runtime.Gosched()
		}
		if err := f.RevokeToken(t.Context(), identity.OperatorPrincipal(), tok.ID); err != nil {
			t.Fatal(err)
		}
		_, err = f.Authenticate(t.Context(), secret)
		wantCode(t, "a revoked token", err, codes.Unauthenticated)
		callers.Wait()
	}
}
