"""ProxyGuard's client out of eduVPN's own library, as `pip install eduvpn-common` brings it, with the options of its
command: --to https://relay.example.com/path --listen-port 51821 --forward-port 51820."""

import argparse
import tempfile

from eduvpn_common.main import EduVPN
from eduvpn_common.types import ProxySetup

options = argparse.ArgumentParser()
options.add_argument("--to", required=True)
options.add_argument("--listen-port", type=int, required=True)
options.add_argument("--forward-port", type=int, required=True)
given = options.parse_args()


@ProxySetup
def leave_the_socket_alone(_descriptor):
    return None


with tempfile.TemporaryDirectory() as configuration:
    library = EduVPN("org.letsconnect-vpn.app.linux", "1.0.0", configuration)
    client = library.new_proxyguard(given.listen_port, 0, given.to, leave_the_socket_alone)
    client.tunnel(given.forward_port)
