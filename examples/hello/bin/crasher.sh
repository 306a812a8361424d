#!/bin/sh
# A program that fails after 8 seconds.
echo "all is well"
sleep 8
echo "something went wrong" >&2
exit 1
