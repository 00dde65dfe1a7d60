package wire_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// clientsInPython talks to the port as the unmodified clients do: grpcio and
// requests, each with the bundle from its own environment variable.
const clientsInPython = `
import os, sys, grpc, requests
addr, port = sys.argv[1], sys.argv[2]
name = "projects/p/locations/us-central1/models/1"

def get_model(target):
    with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as channel:
        call = channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/GetModel")
        request = b"\x0a" + bytes([len(name)]) + name.encode()
        return call(request, timeout=20)

assert name.encode() in get_model(addr), "grpc by address"
assert name.encode() in get_model("localhost:" + port), "grpc by name"
for url in ("https://" + addr, "https://localhost:" + port):
    answer = requests.get(url + "/v1/" + name, timeout=20)
    assert answer.json()["name"] == name, answer.text

os.environ["https_proxy"] = "http://" + addr
host = "us-central1-aiplatform.googleapis.com"
assert name.encode() in get_model(host + ":443"), "grpc through the proxy"
answer = requests.get("https://" + host + "/v1/" + name + "?%24alt=json%3Benum-encoding%3Dint", timeout=20)
assert answer.json()["name"] == name, answer.text
try:
    requests.get("https://compute.googleapis.com/", timeout=20)
except requests.exceptions.ProxyError as e:
    assert "not implemented by tategu" in str(e), e
else:
    raise AssertionError("a foreign host was reached")
print("ok")
`

func TestPythonClientsTrustTheAuthority(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON names no Python with grpcio and requests")
	}
	f := start(t, nil)
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if _, err := f.ca.WriteBundle(bundle, nil); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", clientsInPython, f.addr, f.port)
	cmd.Env = append(os.Environ(), "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH="+bundle, "REQUESTS_CA_BUNDLE="+bundle, "SSL_CERT_FILE="+bundle,
		"no_proxy=", "NO_PROXY=", "https_proxy=", "HTTPS_PROXY=", "http_proxy=", "HTTP_PROXY=", "all_proxy=", "ALL_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
