package sojourngrpc_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sojourn-go/sojourn"
	sojourngrpc "github.com/sojourn-go/sojourn/adapter/grpc"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

func newManager() *sojourn.Manager {
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: ring, Store: memory.New()})
	if err != nil {
		panic(err)
	}
	return sessions
}

// start starts a server with the interceptors, and returns a connection that has a
// jar. The service has no generated code, but its methods are like any other's.
func start(sessions *sojourn.Manager, s *service) (conn *grpc.ClientConn, stop func()) {
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(sojourngrpc.Unary(sessions)),
		grpc.ChainStreamInterceptor(sojourngrpc.Stream(sessions)),
	)
	server.RegisterService(&description, s)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = server.Serve(ln) }()

	var jar sojourngrpc.Jar
	conn, err = grpc.NewClient(ln.Addr().String(), append(jar.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		panic(err)
	}
	return conn, func() {
		_ = conn.Close()
		server.Stop()
	}
}

// A handler that returns an error keeps nothing.
func ExampleUnary() {
	sessions := newManager()
	calls := sojourn.NewKey[int]("calls")

	count := func(ctx context.Context, _ map[string]string) (string, error) {
		session, err := sessions.Get(ctx)
		if err != nil {
			return "", err
		}
		n := calls.Update(session, func(n int) int { return n + 1 })
		if n == 2 {
			return "", status.Error(codes.FailedPrecondition, "call 2 fails")
		}
		return fmt.Sprint("call ", n), nil
	}

	conn, stop := start(sessions, &service{do: count})
	defer stop()
	for range 3 {
		answer := &wrapperspb.StringValue{}
		if err := conn.Invoke(context.Background(), doMethod, &structpb.Struct{}, answer); err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(answer.Value)
	}
	// Output:
	// call 1
	// rpc error: code = FailedPrecondition desc = call 2 fails
	// rpc error: code = FailedPrecondition desc = call 2 fails
}

// A stream that ends with the session.
func ExampleStream() {
	sessions := newManager()
	watching := make(chan *sojourn.Session, 1)

	watch := func(_ map[string]string, stream grpc.ServerStream) error {
		session, err := sessions.Get(stream.Context())
		if err != nil {
			return err
		}
		session.Login("anna")
		// The first message takes the cookie along.
		if err := stream.SendMsg(wrapperspb.String("hello")); err != nil {
			return err
		}
		watching <- session
		select {
		case <-session.Done():
			return status.Error(codes.Unauthenticated, "signed out")
		case <-stream.Context().Done():
			return nil // the client has gone away
		}
	}

	conn, stop := start(sessions, &service{watch: watch})
	defer stop()
	stream, err := conn.NewStream(context.Background(), &description.Streams[0], watchMethod)
	if err != nil {
		panic(err)
	}
	_, _ = stream.SendMsg(&structpb.Struct{}), stream.CloseSend()
	message := &wrapperspb.StringValue{}
	err = stream.RecvMsg(message)
	fmt.Println(message.Value, err)

	<-watching
	if _, err := sessions.RevokeUser(context.Background(), "anna"); err != nil {
		panic(err)
	}
	fmt.Println(stream.RecvMsg(message))
	// Output:
	// hello <nil>
	// rpc error: code = Unauthenticated desc = signed out
}
