#!/bin/sh
# nginx with a configuration of its own, in the foreground, logging to its output.
set -eu
. bin/env.sh
dir=$data/nginx
mkdir -p "$dir"
cat >"$dir/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $dir/nginx.pid;
error_log stderr notice;
events {}
http {
    access_log /dev/stdout;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    server {
        listen 127.0.0.1:$NGINX_PORT;
        location / { proxy_pass http://127.0.0.1:$WEB_PORT; }
    }
}
CONF
exec nginx -e stderr -p "$dir" -c "$dir/nginx.conf"
