# shellcheck shell=bash disable=SC2154 # set by the script that sources this file
#
# The server's files, the same for every configuration: those of the image that scripts/image-nginx
# makes, unpacked once. By hand they are used with chroot, as a task by `image: dir:`. To be sourced
# after bench-places.sh.

server_root=$state_dir/root

unpack_server() {
    mkdir -p "$server_root"
    tar -xOf "$image" --wildcards '*/layer.tar' | tar -x -C "$server_root"
    # No access log: what it costs would depend on where it goes, not on the path.
    cat >"$server_root/etc/nginx/nginx.conf" <<'CONF'
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events {
    worker_connections 4096;
}
http {
    access_log off;
    keepalive_requests 1000000000;
    server {
        listen 80 backlog=4096;
        location / {
            default_type text/plain;
            return 200 "hello\n";
        }
    }
}
CONF
}

# serve WHO: nginx and iperf3 in a namespace made by hand.
serve() {
    background "$run_dir/$1-nginx.log" nsenter --net="$(netns "$1")" -- \
        chroot "$server_root" /usr/sbin/nginx -g 'daemon off;'
    background "$run_dir/$1-iperf3.log" nsenter --net="$(netns "$1")" -- iperf3 -s -p 5201
}
