"""The official AsyncAPI parser, by npm: for the tests of documents that Postline writes."""
