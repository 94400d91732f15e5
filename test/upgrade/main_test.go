// Package upgrade kills, restarts and upgrades the parts of a running agent, as they ship, while a workload opens connections at
// a steady rate. The judge is the server: it tells the proxy's logins from what came past the proxy. It needs root.
package upgrade

import (
	"flag"
	"os"
	"testing"
)

// clientVariable makes the test binary a client: the address that it dials.
const clientVariable = "SALLYPORT_TEST_CLIENT"

// rate is how many connections per second the client opens.
var rate = flag.Int("rate", 200, "connections per second")

func TestMain(m *testing.M) {
	if address := os.Getenv(clientVariable); address != "" {
		runClient(address)
		return
	}
	os.Exit(m.Run())
}
