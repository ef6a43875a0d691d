import { datagramFramings } from '../framing/framings.ts'

export const help = `Usage: spanza connect <url> [options]

Joins a local UDP port, for WireGuard to use as its endpoint, to a relay.

  --listen <address:port>   the local UDP port (default 127.0.0.1:51821)
  --forward <host:port>     where datagrams from the relay go; without it, back to
                            whoever on this machine sent the last one. Needed when
                            --listen is not a loopback address
  --token-file <file>       the token to show the relay; read anew for each attempt.
                            Without it, the environment variable SPANZA_TOKEN
  --header <'Name: value'>  a further header; can be given more than once
  --framing <list>          what to offer under spanza, the preferred one first
                            (default ${datagramFramings.join()})
  --protocol <name>         spanza; websocket, for proxies that let only WebSockets
                            through; or auto (the default): spanza, and websocket where
                            something on the way does not let that through
  --keyless                 with --protocol websocket: the HTTPUpgrade transport of Xray
                            and sing-box in place of a real WebSocket
  --http2                   speak HTTP/2 to the relay, and nothing else. Over TLS it must
                            choose h2; without TLS it is taken to know that
  --host <name>             the Host header, if it is not the URL's
  --servername <name>       the name for TLS, if it is neither --host nor the URL's
  --ca <file>               the certificates to trust in place of the built-in ones (PEM)
  --cert <file>             this side's certificate (PEM)
  --key <file>              this side's private key (PEM); all three are read anew for
                            each attempt
  --insecure                do not check the relay's certificate
  --proxy <url>             an HTTP proxy on the way, http: or https:, or none for no proxy.
                            Without it, what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
                            NO_PROXY in the environment say
  --local-address <address> the address of this machine to connect from
  --keepalive <seconds>     how long nothing may come before the relay is asked for a sign of
                            life (default 25), for proxies that cut silent connections
  --retry-replaced          connect again also when another device with the same
                            identity has taken the place
  --metrics <address:port>  metrics for Prometheus at http://address:port/metrics; only a
                            loopback address, for nothing guards them
  --json                    one JSON object a line, with event and time
  --version
  -h, --help

Lines about the connection go to standard output, errors to standard error. On a
terminal the last line shows what passes at the moment; elsewhere, and without
--json, a line tells once a minute what has passed, if anything has.

Exit codes:
  0  stopped by SIGINT or SIGTERM
  1  an unexpected error, such as a local port that is taken
  2  the command line cannot be used
  3  the relay refused, and would again (what something on the way answers is
     never final: it is said, and tried again)
  4  another device with the same identity took the place
  5  the relay closed the connection for good, for instance by its operator
`
