#!/bin/sh
# Draws a bar of `perdure status encoder --json`, and fails when it is full.
percent=$(tr -d '\n' | sed -n 's/.*"progress": *{[^}]*"percent": *\([0-9]*\).*/\1/p')
percent=${percent:-0}
bar=$(printf '%*s' $((percent / 2)) '' | tr ' ' '#')
printf '\r[%-50s] %3d %%' "$bar" "$percent"
[ "$percent" -lt 100 ] || { echo; exit 1; }
