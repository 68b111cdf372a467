"""Pictures of Gaussians: projection, spherical harmonics and compositing, on the CPU or by gsplat."""
