package httpapi

import (
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/perdure/perdure/api"
)

// The bounds of a request and of an answer's way out.
const (
	maxBody      = 8 << 20
	bodyTimeout  = 30 * time.Second
	writeTimeout = 30 * time.Second
	heartbeat    = 15 * time.Second
)

// Options say who may come and what is told.
type Options struct {
	// Token is the bearer token that may do everything. Without tokens nobody
	// may come over TCP.
	Token string
	// ReadToken is a second token, which may only read.
	ReadToken string
	// Hosts are names that a request over TCP may have in Host, besides
	// "localhost" and addresses.
	Hosts []string
	// Log gets each request at level debug, and panics. Default: nothing.
	Log *slog.Logger
	// Version is told in the OpenAPI document.
	Version string
	// WriteTimeout is how long one write may take until the reader counts as
	// dead. Default 30s.
	WriteTimeout time.Duration
	// Heartbeat is the time between comments on an idle event stream.
	// Default 15s.
	Heartbeat time.Duration
}

// server holds what the handlers need.
type server struct {
	backend   Backend
	opts      Options
	mux       *http.ServeMux
	access    map[string]access // by pattern of mux
	hosts     map[string]bool
	token     [sha256.Size]byte
	readToken [sha256.Size]byte
	spec      *huma.OpenAPI
	specJSON  []byte
}

// New returns the handler of the API. Serve it with Serve, which tells it who
// is at the other end; under any other server every caller needs a token.
func New(b Backend, o Options) http.Handler {
	return newServer(b, o)
}

func newServer(b Backend, o Options) *server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = writeTimeout
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = heartbeat
	}
	s := &server{
		backend: b, opts: o, mux: http.NewServeMux(),
		access:    map[string]access{},
		hosts:     map[string]bool{"localhost": true},
		token:     sha256.Sum256([]byte(o.Token)),
		readToken: sha256.Sum256([]byte(o.ReadToken)),
	}
	for _, h := range o.Hosts {
		s.hosts[h] = true
	}
	s.register()
	return s
}

// register fills the mux from the table.
func (s *server) register() {
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Perdure", Version: s.opts.Version,
				Description: "The HTTP API of Perdure. x-access says what a caller must be allowed to do: read, operate or admin.",
			},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}},
			},
			// On the Unix socket no token is needed.
			Security: []map[string][]string{{"token": {}}, {}},
		},
		Formats:       map[string]huma.Format{"application/json": jsonFormat(), "json": jsonFormat()},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{transformError},
		// A misspelt parameter is told, not ignored.
		RejectUnknownQueryParameters: true,
	}
	a := humago.New(s.mux, config)
	a.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(&answerContext{humaContext: ctx}) })
	schemas := a.OpenAPI().Components.Schemas
	errorSchema := schemas.Schema(reflect.TypeFor[api.Error](), true, "Error")
	for _, rt := range routes() {
		rt.bind(s, a, rt.operation(errorSchema))
		s.access[rt.method+" "+rt.path] = rt.access
	}
	// Huma's own shape of errors is never sent.
	delete(schemas.Map(), "ErrorModel")
	delete(schemas.Map(), "ErrorDetail")
	s.spec = a.OpenAPI()
	spec, err := json.Marshal(s.spec)
	if err != nil {
		//ok: only a type in the table that has no JSON form can do this
		panic("httpapi: the OpenAPI document cannot be written: " + err.Error())
	}
	s.specJSON = spec
}

func jsonFormat() huma.Format {
	return huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: json.Unmarshal}
}
