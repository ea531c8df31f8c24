"""Moving money from A to B by commands: the contract, two services that serve it, a reader, a client, and a trial by fire."""
