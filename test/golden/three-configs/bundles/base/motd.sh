#!/bin/sh
echo hello > /etc/motd
