package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// session is a user's token on all calls of a client. etcd forgets tokens: by
// age, when it restarts and when a password or role changes. The etcd client has
// this too, but sends the old token along when it asks for a new one, which
// servers up to 3.4 refuse, so that it would ask for ever.
type session struct {
	user     string
	password secret
	turn     chan token // holds the token while nobody signs in
}

// token is "" with a server that asks for none.
type token struct {
	text   string
	signed bool // the server has been asked
}

func newSession(user string, password secret) *session {
	s := &session{user: user, password: password, turn: make(chan token, 1)}
	s.turn <- token{}
	return s
}

// options make a client's calls the user's.
func (s *session) options() []grpc.DialOption {
	if s.user == "" {
		return nil
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(s.unary), grpc.WithChainStreamInterceptor(s.stream)}
}

// unary signs in where that has not been done, and again where the server has
// forgotten the token. A question about the server is nobody's in particular:
// Store.explain asks it to learn why there is no connection.
func (s *session) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == etcdserverpb.Auth_Authenticate_FullMethodName || method == etcdserverpb.Maintenance_Status_FullMethodName {
		return next(ctx, method, req, reply, conn, opts...)
	}
	t, err := s.get(ctx, conn)
	if err != nil {
		return err
	}
	err = next(t.attach(ctx), method, req, reply, conn, opts...)
	if !t.forgotten(err) {
		return err
	}
	if t, err = s.renew(ctx, conn, t); err != nil {
		return err
	}
	return next(t.attach(ctx), method, req, reply, conn, opts...)
}

// stream uses the token that there is: each of our streams follows a call that
// has tried it.
func (s *session) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	t, err := s.get(ctx, conn)
	if err != nil {
		return nil, err
	}
	return next(t.attach(ctx), desc, conn, method, opts...)
}

func (t token) attach(ctx context.Context) context.Context {
	if t.text == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, t.text)
}

// forgotten tells whether a new token may help. Without a token a server may
// take the client for the user that its certificate names.
func (t token) forgotten(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrUserEmpty) || t.text == "" && errors.Is(err, rpctypes.ErrPermissionDenied)
}

func (s *session) get(ctx context.Context, conn *grpc.ClientConn) (token, error) {
	return s.renew(ctx, conn, token{})
}

// renew returns another token than old. Signing in outlives a caller that cannot
// wait, since whoever comes next shares the token: when all hosts of a large
// cluster sign in at once etcd is busy for long, and what is given up it has done
// in vain.
func (s *session) renew(ctx context.Context, conn *grpc.ClientConn, old token) (token, error) {
	var now token
	select {
	case now = <-s.turn:
	case <-ctx.Done():
		return now, ctx.Err()
	}
	if now != old {
		s.turn <- now
		return now, nil
	}
	var fresh token
	ended := make(chan error, 1)
	go func() {
		var err error
		if fresh, err = s.signIn(context.WithoutCancel(ctx), conn); err != nil {
			s.turn <- old
		} else {
			s.turn <- fresh
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return fresh, err
	case <-ctx.Done():
		return old, ctx.Err()
	}
}

// signInTimeout bounds one attempt; closing the client ends it, too.
const signInTimeout = 30 * time.Second

func (s *session) signIn(ctx context.Context, conn *grpc.ClientConn) (token, error) {
	password, err := s.password.read()
	if err != nil {
		return token{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, signInTimeout)
	defer cancel()
	got, err := etcdserverpb.NewAuthClient(conn).Authenticate(ctx,
		&etcdserverpb.AuthenticateRequest{Name: s.user, Password: password}, grpc.WaitForReady(true))
	switch err = rpctypes.Error(err); {
	case errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return token{signed: true}, nil
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return token{}, fmt.Errorf("%w: etcd does not know ETCD_USERNAME=%s with the password of %s; give those of a user that etcd has: etcdctl user list, etcdctl user passwd %s",
			err, s.user, s.password.setting(), s.user)
	case err != nil:
		return token{}, err
	}
	return token{got.Token, true}, nil
}
