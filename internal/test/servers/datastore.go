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

// Datastore starts Google's Datastore emulator, in the mode that Firestore
// databases have, with further arguments such as "--require_indexes". It is
// empty, forgets everything at its end, and knows any project.
//
// The emulator comes with the Google Cloud SDK alone. Where that or Java is
// missing Datastore returns nil, after saying loudly that nothing is tested,
// and fails the test if REQUIRE_DATASTORE is 1.
func Datastore(t TB, args ...string) *Server {
	t.Helper()
	jar, err := sdkJar("cloud-datastore-emulator", "CloudDatastore.jar")
	if err != nil {
		noDatastore(t, err)
		return nil
	}
	s := newServer(t, "datastore", "java")
	s.args = append([]string{
		"-Xmx512m", quickJava, "-cp", jar, "com.google.cloud.datastore.emulator.CloudDatastore", "start",
		"--host=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--testing", "--firestore_in_datastore_mode",
	}, args...)
	s.ready = s.answersOK
	s.Start()
	return s
}

// LockingDatastore starts Google's Firestore emulator in Datastore mode, in which
// transactions lock what they read, as in databases with pessimistic concurrency:
// of two in each other's way one waits, for about two seconds. Otherwise it is as
// [Datastore].
func LockingDatastore(t TB) *Server {
	t.Helper()
	jar, err := sdkJar("cloud-firestore-emulator", "cloud-firestore-emulator.jar")
	if err != nil {
		noDatastore(t, err)
		return nil
	}
	s := newServer(t, "locking datastore", "java")
	s.args = []string{
		"-Xmx512m", quickJava, "-Duser.language=en", "-cp", jar, "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
		"--host=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--websocket_port=" + strconv.Itoa(Port(t)), "--database-mode=datastore-mode",
	}
	s.ready = s.answersOK
	s.Start()
	return s
}

// quickJava makes Java compile quickly rather than well. An emulator does not live
// long enough for more: its compiler took two fifths of all processor time.
const quickJava = "-XX:TieredStopAtLevel=1"

// noDatastore says loudly that something is not tested, and fails the test where
// that must not be.
func noDatastore(t TB, err error) {
	t.Helper()
	if os.Getenv("REQUIRE_DATASTORE") == "1" {
		t.Fatalf("Cloud Datastore cannot be tested: %v", err)
	}
	fmt.Fprintf(os.Stderr, "\n*** Cloud Datastore was NOT TESTED by %s: %v\n\n", t.Name(), err)
}

// sdkJar finds a program in Java that a component of the Google Cloud SDK brings.
func sdkJar(component, file string) (jar string, err error) {
	sdk, err := cloudSDK()
	if err != nil {
		return "", err
	}
	jar = filepath.Join(sdk, "platform", component, file)
	if _, err := os.Stat(jar); err != nil {
		return "", fmt.Errorf("the Google Cloud SDK lacks the component %s: %w", component, err)
	}
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("there is no Java: %w", err)
	}
	return jar, nil
}

// cloudSDK finds the Google Cloud SDK: CLOUDSDK_ROOT, or where the gcloud on the
// PATH belongs to.
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

// answersOK asks for / by HTTP.
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
