//go:build linux

package servers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Datastore starts Google's Datastore emulator, in the mode of Firestore
// databases, with further arguments such as "--require_indexes". It starts
// empty, keeps nothing, and accepts any project.
//
// The emulator is part of the Google Cloud SDK. If that or Java is missing the
// test fails, unless it is left out: see [WithoutGoogle].
func Datastore(t TB, args ...string) *Server {
	t.Helper()
	jar := sdkJar(t, "cloud-datastore-emulator", "CloudDatastore.jar")
	s := newServer(t, "datastore", "java")
	s.args = append([]string{
		"-Xmx512m", quickJava, "-cp", jar, "com.google.cloud.datastore.emulator.CloudDatastore", "start",
		"--host=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--testing", "--firestore_in_datastore_mode",
	}, args...)
	s.ready = s.answersOK
	s.Start()
	return s
}

// LockingDatastore starts Google's Firestore emulator in Datastore mode, in
// which transactions lock entities that they read, as in databases with
// pessimistic concurrency: of two conflicting ones, one waits for about two
// seconds. Otherwise it is like [Datastore].
func LockingDatastore(t TB) *Server {
	t.Helper()
	jar := sdkJar(t, "cloud-firestore-emulator", "cloud-firestore-emulator.jar")
	s := newServer(t, "locking datastore", "java")
	s.args = []string{
		"-Xmx512m", quickJava, "-Duser.language=en", "-cp", jar, "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
		"--host=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--websocket_port=" + strconv.Itoa(Port(t)), "--database-mode=datastore-mode",
	}
	s.ready = s.answersOK
	s.Start()
	return s
}

// quickJava makes Java compile quickly with fewer optimizations. An emulator
// does not run long enough for more: the compiler took two fifths of all
// processor time.
const quickJava = "-XX:TieredStopAtLevel=1"

// sdkJar finds a Java program of a component of the Google Cloud SDK.
func sdkJar(t TB, component, file string) string {
	t.Helper()
	found := sdkFiles(t, map[string]string{component: filepath.Join("platform", component, file)})
	if _, err := exec.LookPath("java"); err != nil {
		t.Fatalf("%s is there, but no Java, and this test needs it: %v", component, err)
	}
	return found[component]
}

// WithoutGoogle reports whether WITHOUT_GOOGLE=1 is set, which leaves out the
// tests that need the Google Cloud SDK.
func WithoutGoogle() bool { return os.Getenv("WITHOUT_GOOGLE") == "1" }

// NeedsGoogle leaves a test out if [WithoutGoogle] is true.
func NeedsGoogle(t TB) {
	t.Helper()
	if WithoutGoogle() {
		t.Skip("NOT TESTED: this test needs the Google Cloud SDK, and WITHOUT_GOOGLE=1 leaves it out")
	}
}

// sdkFiles finds a file of each of those components of the Google Cloud SDK. If
// one is missing the test fails with instructions.
func sdkFiles(t TB, files map[string]string) map[string]string {
	t.Helper()
	NeedsGoogle(t)
	sdk, err := cloudSDK()
	found := map[string]string{}
	for component, file := range files {
		if err == nil {
			found[component] = filepath.Join(sdk, file)
			_, err = os.Stat(found[component])
		}
		if err != nil {
			t.Fatalf("the Google Cloud SDK's component %s is not installed, and this test needs it: %v\n"+
				"gcloud components install brings it, and store/datastore/cloud/README.md says where it is looked for; WITHOUT_GOOGLE=1 leaves such tests out", component, err)
		}
	}
	return found
}

// cloudSDK finds the Google Cloud SDK: CLOUDSDK_ROOT, or that of the gcloud on
// the PATH.
func cloudSDK() (dir string, err error) {
	if sdk := os.Getenv("CLOUDSDK_ROOT"); sdk != "" {
		return sdk, nil
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return "", fmt.Errorf("there is no Google Cloud SDK: %w", err)
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(gcloud)), nil
}

// answersOK requests / by HTTP.
func (s *Server) answersOK(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr+"/", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(body)); resp.StatusCode != http.StatusOK || !strings.EqualFold(text, "ok") {
		return fmt.Errorf("%s %q is no answer", resp.Status, text)
	}
	return nil
}
