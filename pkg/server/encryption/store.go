package encryption

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kedge-io/kedge/pkg/datastore/etcd"
	"github.com/kedge-io/kedge/pkg/seal"
)

// stateKey is where the state lies in the datastore, sealed with a key that is derived from the cluster's authority.
const stateKey = "/kedge/secrets-encryption"

// askTimeout bounds one question to the datastore or to a server.
const askTimeout = 10 * time.Second

// errChanged says that somebody else changed the state meanwhile.
var errChanged = errors.New("secrets encryption was changed by somebody else at the same time: repeat the command")

// unreachable is an error of a datastore that may answer later.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// Datastore says where the datastore is.
type Datastore struct {
	etcd.Remote
	// Prefix is below which the API server keeps its objects; empty means /registry.
	Prefix string
}

// store is the state in the datastore.
type store struct {
	client *clientv3.Client
	box    *seal.Box
	prefix string
}

// openStore connects to nothing yet. authority is the key of the cluster's authority, which all servers have.
func openStore(d Datastore, authority []byte) (*store, error) {
	c, err := d.Settings()
	if err != nil {
		return nil, err
	}
	box, err := sealer(authority)
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(c)
	if err != nil {
		return nil, fmt.Errorf("reach the datastore: %w", err)
	}
	prefix := d.Prefix
	if prefix == "" {
		prefix = "/registry"
	}
	return &store{client, box, "/" + strings.Trim(prefix, "/") + "/secrets/"}, nil
}

func (s *store) close() { _ = s.client.Close() } // nothing is lost with it

func sealer(authority []byte) (*seal.Box, error) {
	return seal.Derive(authority, "kedge secrets encryption")
}

// enclose makes of a state what nobody can read or change who has not the authority's key.
func enclose(box *seal.Box, s State) ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return box.Seal(plain, stateKey), nil
}

func disclose(box *seal.Box, sealed []byte) (State, error) {
	var s State
	plain, err := box.Open(sealed, stateKey)
	if err != nil {
		return s, errors.New("the keys for Secrets in the datastore are damaged, or those of a cluster with another authority: restore server/tls of this one from a snapshot")
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return s, fmt.Errorf("read the keys for Secrets: %w", err)
	}
	if len(s.Keys) == 0 {
		return s, errors.New("the state of secrets encryption in the datastore has no key")
	}
	return s, nil
}

// load returns the state and its revision; nil where there is none.
func (s *store) load(ctx context.Context) (*State, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := s.client.Get(ctx, stateKey)
	if err != nil {
		return nil, 0, unreachable{fmt.Errorf("read the datastore: %w", err)}
	}
	if len(found.Kvs) == 0 {
		return nil, 0, nil
	}
	state, err := disclose(s.box, found.Kvs[0].Value)
	return &state, found.Kvs[0].ModRevision, err
}

// save replaces the state that had this revision, 0 for none.
func (s *store) save(ctx context.Context, state State, revision int64) error {
	sealed, err := enclose(s.box, state)
	if err != nil {
		return fmt.Errorf("seal the keys for Secrets: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	done, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(stateKey), "=", revision)).Then(clientv3.OpPut(stateKey, string(sealed))).Commit()
	if err != nil {
		return unreachable{fmt.Errorf("write the datastore: %w", err)}
	}
	if !done.Succeeded {
		return errChanged
	}
	return nil
}

// members are the hosts of the datastore's members.
func (s *store) members(ctx context.Context) ([]string, error) {
	found, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, unreachable{fmt.Errorf("list the members of the datastore: %w", err)}
	}
	var hosts []string
	for _, m := range found.Members {
		for _, peer := range m.PeerURLs[:min(1, len(m.PeerURLs))] {
			if u, err := url.Parse(peer); err == nil {
				hosts = append(hosts, u.Hostname())
			}
		}
	}
	return hosts, nil
}

// used reports whether there are Secrets.
func (s *store) used(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := s.client.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return false, unreachable{fmt.Errorf("read the datastore: %w", err)}
	}
	return len(found.Kvs) > 0, nil
}

// name is that of a Secret.
type name struct{ namespace, name string }

// stale returns the Secrets whose stored value does not begin as new ones do, and how many there are in all.
func (s *store) stale(ctx context.Context, state State) (old []name, all int, err error) {
	const page = 20 // a Secret may have a megabyte
	from, end := s.prefix, clientv3.GetPrefixRangeEnd(s.prefix)
	for {
		limited, cancel := context.WithTimeout(ctx, askTimeout)
		found, err := s.client.Get(limited, from, clientv3.WithRange(end), clientv3.WithLimit(page))
		cancel()
		if err != nil {
			return nil, 0, unreachable{fmt.Errorf("read the datastore: %w", err)}
		}
		for _, kv := range found.Kvs {
			all++
			if fresh(string(kv.Value), state.prefix()) {
				continue
			}
			if ns, secret, ok := strings.Cut(strings.TrimPrefix(string(kv.Key), s.prefix), "/"); ok {
				old = append(old, name{ns, secret})
			}
		}
		if !found.More || len(found.Kvs) == 0 {
			return old, all, nil
		}
		from = string(found.Kvs[len(found.Kvs)-1].Key) + "\x00"
	}
}

// fresh reports whether a stored value is as new ones are: with the prefix of the key that encrypts, or with none.
func fresh(value, prefix string) bool {
	if prefix == "" {
		return !strings.HasPrefix(value, "k8s:enc:")
	}
	return strings.HasPrefix(value, prefix)
}
