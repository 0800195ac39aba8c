package autonomy

import (
	"net/http"

	"github.com/kedge-io/kedge/pkg/autonomy/slim"
)

// ForNodes is the server's end: it answers the node APIs that ask for it in a form that costs little on the way. It goes in front of the API server.
func ForNodes(api http.Handler) http.Handler { return slim.Front(api) }
