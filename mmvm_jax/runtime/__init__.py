"""Services of the machine: devices, processes, files, object storage, signals, environment and the command line."""
