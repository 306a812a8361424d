#!/bin/sh
# A program without an end.
while :; do
    echo "tick $(date +%H:%M:%S)"
    sleep 2
done
