"""dcgan: deep convolutional GANs of well-known tutorials, trained on the engine `minigrad`."""
