"""Moving money from A to B by commands: contract, services in two forms, a reader, a client, and a trial by fire."""
