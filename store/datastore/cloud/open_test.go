package cloud_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/opentest"
)

func TestByURLWhereThereIsNoServer(t *testing.T) {
	t.Setenv("DATASTORE_EMULATOR_HOST", "127.0.0.1:1")
	opentest.Run(t, opentest.Engine{
		Away: []string{"datastore://project"},
		Refused: []string{
			"datastore:", "datastore://", "datastore://p?kind=__x", "datastore://p?namespace=a&namespace=b", "datastore://p?ttl_policy=often",
			"datastore://p?table=x", "datastore://u:hunter2@p",
		},
		RefusedCaches: []string{"datastore://project"},
	})
}

func testByURL(t *testing.T) {
	opentest.Run(t, opentest.Engine{Stores: []string{"datastore://open-test", "datastore://open-test?namespace=ours&kind=Session&ttl_policy=true"}})
}
