# Holds a network namespace, from within; run by unshare --net --mount.
# A wireguard interface's control socket lies in /var/run/wireguard: with a directory of its own, each namespace
# can have a wg0. Linux may copy ip_forward from the first namespace, so it is switched off.
set -e
mkdir -p /var/run/wireguard
mount -t tmpfs tmpfs /var/run/wireguard
ip link set lo up
[ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ] || echo 0 > /proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity
