package identity

import (
	"encoding/json"
	"fmt"
)

// Clients insist on an OAuth client; ours is public and proves nothing.
const (
	ClientID     = "tategu"
	ClientSecret = "public-client"
)

// credentialFile has the fields that google-auth reads (its 2.x
// external_account_authorized_user.py and oauth2/credentials.py).
type credentialFile struct {
	Type         string `json:"type"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RefreshToken string `json:"refresh_token"`
	TokenURL     string `json:"token_url,omitempty"`
	TokenInfoURL string `json:"token_info_url,omitempty"`
	RevokeURL    string `json:"revoke_url,omitempty"`
}

// LoginFile is the credential file that GOOGLE_APPLICATION_CREDENTIALS names
// after a login: it refreshes at baseURL (https://HOST:PORT). It has no audience
// on purpose: with one of a workforce pool google-auth would send the token to
// an outside host in the background, with any other it prints an error.
func LoginFile(baseURL, refreshToken string) ([]byte, error) {
	return encodeFile(credentialFile{
		Type: "external_account_authorized_user", ClientID: ClientID, ClientSecret: ClientSecret, RefreshToken: refreshToken,
		TokenURL: baseURL + "/token", TokenInfoURL: baseURL + "/tokeninfo", RevokeURL: baseURL + "/revoke",
	})
}

// InterceptFile is the credential file for the intercept mode: google-auth
// refreshes files of this type at oauth2.googleapis.com whatever they say, which
// the proxy ends here.
func InterceptFile(refreshToken string) ([]byte, error) {
	return encodeFile(credentialFile{
		Type: "authorized_user", ClientID: ClientID, ClientSecret: ClientSecret, RefreshToken: refreshToken,
	})
}

func encodeFile(f credentialFile) ([]byte, error) {
	b, err := json.MarshalIndent(f, "", "  ") //nolint:gosec // G117: a credential file is for its owner, who asked for it
	if err != nil {
		return nil, fmt.Errorf("credential file: %w", err)
	}
	return append(b, '\n'), nil
}
