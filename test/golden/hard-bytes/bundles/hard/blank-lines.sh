#!/bin/sh

	
 

