import { datagramFramings } from '../framing/framings.ts'

export const help = `Usage: spanza connect <url> [options]

Joins a local UDP port, for WireGuard to use as its endpoint, to a relay.

  --listen <address:port>   the local UDP port (default 127.0.0.1:51821)
  --forward <host:port>     where datagrams from the relay go; without it, to the last
                            sender on this machine. Required when --listen is not a
                            loopback address
  --token-file <file>       the token for the relay; read again for each attempt.
                            Without it, the environment variable SPANZA_TOKEN
  --header <'Name: value'>  a further header; can be given more than once
  --framing <list>          framings to offer with spanza, the preferred one first
                            (default ${datagramFramings.join()})
  --protocol <name>         spanza; websocket, for proxies that let only WebSockets
                            through; or auto (the default): spanza, and websocket where
                            something on the path blocks that
  --keyless                 with --protocol websocket: the HTTPUpgrade transport of Xray
                            and sing-box in place of a real WebSocket
  --http2                   speak only HTTP/2 to the relay. With TLS, the server must
                            choose h2; without TLS, HTTP/2 is assumed
  --host <name>             the Host header, if it is not the URL's
  --servername <name>       the name for TLS, if it is neither --host nor the URL's
  --ca <file>               the certificates to trust instead of the built-in ones (PEM)
  --cert <file>             this side's certificate (PEM)
  --key <file>              this side's private key (PEM); all three are read again for
                            each attempt
  --insecure                do not check the relay's certificate
  --proxy <url>             an HTTP proxy, http: or https:, or none for no proxy. Default:
                            HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY in the
                            environment
  --local-address <address> the address of this machine to connect from
  --keepalive <seconds>     idle time after which the relay is asked for a sign of life
                            (default 25), for proxies that cut idle connections
  --retry-replaced          connect again even when another device with the same
                            identity has taken the place
  --metrics <address:port>  metrics for Prometheus at http://address:port/metrics; must be
                            a loopback address, because they need no credentials
  --json                    write one JSON object per line, with event and time
  --version
  -h, --help

Lines about the connection go to standard output, errors to standard error. On a
terminal the last line shows the current traffic. Elsewhere, and without --json, a
line once a minute sums up the traffic, if there was any.

Exit codes:
  0  stopped by SIGINT or SIGTERM
  1  an unexpected error, such as a local port that is taken
  2  the command line is wrong
  3  the relay refused, and would again (an answer of something on the path is
     never final: it is reported, and the next attempt follows)
  4  another device with the same identity took the place
  5  the relay closed the connection for good, for instance because its operator did
`
