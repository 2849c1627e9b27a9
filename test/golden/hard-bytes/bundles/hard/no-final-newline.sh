#!/bin/sh
echo "no newline at the end"