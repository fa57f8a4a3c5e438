"""What goes around calls: one module for each framework, imported only where the framework is used."""
