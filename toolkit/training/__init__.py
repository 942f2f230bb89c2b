"""Training of networks: standard, adversarial, certified; with stability regularisers."""
