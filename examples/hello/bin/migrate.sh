#!/bin/sh
# A program that is meant to end.
for step in 1 2 3; do
    echo "migration $step of 3"
    sleep 0.3
done
