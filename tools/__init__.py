"""What people run: the command line, the deployment on one machine, benchmarks.

cli/      `ringfort NOUN ...`: one file per noun; parse, call, print
deploy/   the composition root: processes, sockets, devices, and the demo; it alone imports the packages' server modules
bench/    load against ourselves, and the micro benchmarks of single rooms
"""
